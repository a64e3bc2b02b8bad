"""Pictures: charts, slice panels, volumes for the viewer."""
