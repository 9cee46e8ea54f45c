"""Making a stack, in parts that stand for themselves: files in, files out, in whichever process and order."""
