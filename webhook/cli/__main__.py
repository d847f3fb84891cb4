"""`python -m webhook.cli` is `client-ip`."""

from webhook.cli.start import main

main()
