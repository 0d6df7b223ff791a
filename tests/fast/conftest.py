"""These tests keep what is kept for the user as those of align/data do."""

from tests.data.conftest import user_cache as user_cache
