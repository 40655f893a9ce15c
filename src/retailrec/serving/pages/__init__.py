"""Pages for people: server-rendered, every state a URL, readable without JavaScript or network."""
