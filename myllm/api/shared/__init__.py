"""What several dialects use: field types, schemas, tools, translated chats, dependencies."""
