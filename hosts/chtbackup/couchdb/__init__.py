"""CouchDB's files, and a CouchDB that answers."""
