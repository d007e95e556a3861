"""The app as a Hugging Face Space: what it holds, its page, and putting it on the Hub."""
