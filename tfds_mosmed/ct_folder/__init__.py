"""Any folder of CT studies, with a sub-folder for each class."""
