"""What a reader took from the images into the report: measurements and key images."""
