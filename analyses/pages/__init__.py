"""Pages to read in a browser: sections, the dossier that is made of them, and the folder that they are written to."""
