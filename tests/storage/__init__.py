"""Packages in object storage: a server with S3's API, and a Ray head that reads from it."""
