"""A page that shows a stream live, in any browser."""

from edgeser.web.server import WebView

__all__ = ["WebView"]
