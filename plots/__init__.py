"""All figures: numbers and arrays in, PNG files out."""
