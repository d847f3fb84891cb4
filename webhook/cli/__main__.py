"""`python -m webhook.cli` is `client-ip`."""

from webhook.cli.main import main

main()
