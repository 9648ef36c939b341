"""What a person leaves on a slide, kept from one sitting to the next."""
