"""A Django project of one view, for django-anymail's receivers of webhooks.
It exists so that what they make of a batch can be looked at: the events they signal."""

import base64
import warnings

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="tests",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["anymail"],
    ANYMAIL={"WEBHOOK_SECRET": "a:b"},
    USE_TZ=True,
)
warnings.filterwarnings("ignore", message=".*dropped official support for SendGrid.*")
django.setup()

from anymail.signals import tracking  # noqa: E402
from django.test import RequestFactory  # noqa: E402

AUTH = "Basic " + base64.b64encode(b"a:b").decode()


def received(view, body, content_type="application/json"):
    """Posts a body to a view and returns the events that come of it."""
    events = []

    def note(sender, event, esp_name, **_):
        events.append(event)

    tracking.connect(note)
    try:
        request = RequestFactory().post("/", data=body.encode(), content_type=content_type, HTTP_AUTHORIZATION=AUTH)
        response = view.as_view()(request)
    finally:
        tracking.disconnect(note)
    assert response.status_code == 200, response
    return events
