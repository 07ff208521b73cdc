"""Verifies a webhook with the library of Standard Webhooks: `webhook.py SECRET`, headers and body as JSON on stdin."""

import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

given = json.load(sys.stdin)
try:
    verified = Webhook(sys.argv[1]).verify(given["body"], given["headers"])
    print(json.dumps({"verified": verified}))
except WebhookVerificationError as error:
    print(json.dumps({"error": str(error)}))
