"""What a trained model keeps to be doubted by: where its training slides lie, and what it can promise."""
