"""What brings files to ingest by itself: standing watches over an archive, and watched folders.

    model, found    a watch; a file that an archive shows
    adql, sweep     what is asked, and how a window of times is read to its end; pure
    deciding        what to do about a file, given what the ledger knows of it; pure
    announcing      what is said of a file, and kept of it
    tap             the archive's catalogue
    store           watches, bookmarks and ledger in PostgreSQL
    discovery       one pass over one watch; preview: the same without writing anything
    loop            passes in the background, shared by all services
    folder, mounts  watched folders
    setup           all of it put together from settings

What is missed and what is repeated here is decided in `sweep`, `deciding` and the transactions of `store`.
"""
