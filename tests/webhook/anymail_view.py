import os

from anymail.webhooks.sparkpost import SparkPostTrackingWebhookView
from django.core.exceptions import PermissionDenied
from standardwebhooks import Webhook, WebhookVerificationError


class SignedSparkPostView(SparkPostTrackingWebhookView):
    warn_if_no_basic_auth = False

    def validate_request(self, request):
        try:
            Webhook(os.environ["ANYMAIL_SECRET"]).verify(request.body, request.headers)
        except WebhookVerificationError:
            raise PermissionDenied
