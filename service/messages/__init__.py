"""What clients send and get: schemas, forms, uploads, negotiation, answers."""
