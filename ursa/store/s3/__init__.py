"""Stores on an S3 server. One client signs and sends every request, under one trust store and one proxy rule.

From the socket up: ``trust`` and ``proxies``; ``connection`` and ``pool``; ``signing`` and ``client``; ``replies`` and
``words``; ``store``.
"""

from ursa.store.s3.store import S3Store
from ursa.store.s3.words import S3Location

__all__ = ["S3Location", "S3Store"]
