"""What several dialects use: field types, tools, chats in a foreign form, dependencies."""
