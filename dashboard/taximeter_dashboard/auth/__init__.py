"""Who is looking: tokens, sessions, sign-in, OpenID Connect."""
