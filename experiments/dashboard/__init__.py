"""The dashboard: what runs did for each of their people, in a browser. It only reads run folders."""
