"""What makes a file a usable exposure. Pure: headers and figures in, judgement out."""
