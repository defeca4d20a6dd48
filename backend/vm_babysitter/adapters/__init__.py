"""One module per outside thing; each translates its errors into ours."""
