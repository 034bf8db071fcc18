"""``rotarran.wsgi:application`` for any WSGI server."""

from rotarran import main

application = main.run_wsgi()
