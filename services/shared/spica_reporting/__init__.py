"""What pages for people are made of: diagrams as SVG, colours, pictures inside of the page, its base style."""
