"""`python -m client.video`: questions about a video file or a camera, at the rate at which its frames come."""
