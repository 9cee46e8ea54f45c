"""What people look at: pictures, one self-contained page per image or stack, and a VOTable. Data in, bytes out."""
