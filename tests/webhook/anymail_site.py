"""A Django site of one address: django-anymail's receiver of SparkPost's webhooks, behind our signature (anymail_view.py).
Usage: anymail_site.py LOG"""

import json
import sys
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from django.conf import settings

settings.configure(ALLOWED_HOSTS=["*"], INSTALLED_APPS=["anymail"], ROOT_URLCONF=__name__, SECRET_KEY="tests", USE_TZ=True)
django.setup()

from anymail.signals import tracking  # noqa: E402
from anymail_view import SignedSparkPostView  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.urls import path  # noqa: E402

LOG = open(sys.argv[1], "a")
events = []


def note(sender, event, **_):
    events.append([event.event_id, event.event_type])


tracking.connect(note)


def sparkpost(request):
    events.clear()
    response = SignedSparkPostView.as_view()(request)
    run, key = request.headers.get("x-run"), request.headers["webhook-id"]
    print(json.dumps({"path": "/anymail", "run": run, "id": key, "answer": "200", "events": events}), file=LOG, flush=True)
    return response


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


sparkpost.csrf_exempt = True
urlpatterns = [path("sparkpost/", sparkpost)]
server = make_server("127.0.0.1", 0, get_wsgi_application(), handler_class=Quiet)
print(server.server_port, flush=True)
server.serve_forever()
