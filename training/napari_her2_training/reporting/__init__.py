"""What a finished run says of its models: numbers, pictures, one page."""
