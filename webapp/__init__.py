"""The browser application: one module per tab, the page that holds them, and the server. It needs Gradio."""
