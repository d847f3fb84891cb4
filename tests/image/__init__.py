"""The image, built from the Dockerfile as it is and run as a cluster would run it; `make image-test`, as root."""
