"""Pure parts of the export service: names, VOTable, checksum list."""
