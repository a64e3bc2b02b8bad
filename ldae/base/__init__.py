"""What every room stands on: files written whole, hardware, processes, ranges of settings, objects in notebooks."""
