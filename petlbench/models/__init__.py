"""What a backbone and a method are, and how one is put on the other."""
