"""Packages in object storage: servers with the APIs of S3 and Google Cloud Storage, and a Ray head that reads them."""
