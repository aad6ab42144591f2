"""A bundle as a folder of static files, whose page runs the model in the browser's tab."""
