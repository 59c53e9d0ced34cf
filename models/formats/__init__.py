"""Networks from elsewhere: published headers, NIR."""
