"""Transfer benchmark: networks trained on phantoms, on harder phantoms, a second hospital and real CT."""
