"""Any folder of CT studies, a sub-folder a class."""
