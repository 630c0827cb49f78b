"""The HTTP face of the API: from requests as values to answers as values."""
