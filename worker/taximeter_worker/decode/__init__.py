"""From the bytes of a broker message to usages, payments and rejections."""
