"""An order: stock is reserved, the card is charged, the parcel is booked. Each can fail, and each can be taken back."""
