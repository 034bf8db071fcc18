import os
from urllib.parse import parse_qs, urlsplit

_url = urlsplit(os.environ["DATABASE_URL"])
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _url.path.strip("/"),
        "USER": _url.username,
        "HOST": parse_qs(_url.query)["host"][0],
        "CONN_MAX_AGE": None,
        "TEST": {"NAME": _url.path.strip("/")},
    }
}
INSTALLED_APPS = ["planets"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = True
