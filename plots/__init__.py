"""Every figure that a person looks at. Plain numbers in, PNG files out."""
