-- blob_refs.created_at is when the project last asked for the blob: it is what an unnamed one is kept by.
CREATE INDEX blob_refs_by_digest ON blob_refs (digest);
