"""What the pages say is so: their links, paths, commands and tables are held to the code."""
