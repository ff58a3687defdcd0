"""``pytest tests/api --hypothesis-profile=thorough`` tries twenty times as many examples."""

import contextlib

with contextlib.suppress(ImportError):  # the tests beside this say that they need it
    from hypothesis import settings

    settings.register_profile("thorough", max_examples=2000)
