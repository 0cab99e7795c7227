# The bytes of a name index: a header and flat arrays, one after the other, each at a multiple of eight bytes.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    LAYOUT = 1                       # raised whenever an array changes its meaning

cdef enum:                           # the arrays, as they stand; a new one comes last, an old one stays, empty
    LETTERS                          # uint8: of all words, one after the other
    WORDS                            # ListedWord, by word
    POSTING_STARTS                   # uint32, by word
    POSTINGS                         # Posting: the forms that hold the word, those of least weight first
    NEAR_STARTS                      # uint32: buckets of words under their own letters and these less one
    NEAR                             # uint32: word, and above its bits those of the hash
    SKELETON_STARTS                  # the same under consonants alone
    SKELETONS
    FORM_STARTS                      # uint32, by form
    FORM_WORDS                       # uint32: words of the form in the order written
    KEY_STARTS                       # buckets of forms under all their words, and two under their letters joined
    KEYS
    NAME_STARTS                      # uint32, by form
    NAMES                            # ListedName: who bears it
    ENTITY_STARTS                    # uint64, by entity: these two are the same in every layout
    ENTITIES                         # uint8: MessagePack
    COUNTRY_STARTS                   # uint32, by entity
    COUNTRIES                        # uint16: two letters
    BIRTH_STARTS                     # uint32, by entity
    BIRTHS                           # uint32: yyyymmdd, 0 for what is not told
    IDENTIFIER_STARTS                # uint32: buckets by the hash of the value
    IDENTIFIERS                      # ListedIdentifier
    ID_STARTS                        # buckets of entities under their ids
    IDS
    N_SECTIONS

cdef struct ListedWord:
    uint32_t text                    # in LETTERS
    uint32_t mask
    uint8_t length
    uint8_t kind
    uint8_t[2] weight

cdef struct Posting:
    uint32_t form
    uint16_t[2] weight               # of the whole form, as an organisation's and as a person's

cdef struct ListedName:
    uint32_t entity
    uint16_t number                  # among its names, then its weak ones
    uint16_t weak

cdef struct ListedIdentifier:
    uint64_t hash                    # of the value
    uint32_t entity
    uint16_t country                 # 0 where it is not told
    uint16_t kind

cdef struct Span:
    uint64_t offset                  # bytes from the beginning
    uint64_t count                   # items

cdef struct Header:                  # the same in every layout, but for the number of spans
    uint64_t magic
    uint32_t layout
    uint32_t checksum                # CRC-32 of everything, itself taken as zero
    uint64_t size
    uint64_t stamp                   # of the words and the transliteration that it was made with
    uint64_t n_names
    Span[N_SECTIONS] spans

cdef struct Buckets:                 # a hash table whose chains lie side by side
    const uint32_t* starts
    const uint32_t* entries
    uint32_t n_buckets
    uint32_t id_mask                 # the bits of an entry that are the id; the others are the hash's own

cdef struct View:                    # where everything is
    uint32_t n_words
    uint32_t n_forms
    uint32_t n_entities
    uint32_t n_names
    const uint8_t* letters
    const ListedWord* words
    const uint32_t* posting_starts
    const Posting* postings
    Buckets near
    Buckets skeletons
    const uint32_t* form_starts
    const uint32_t* form_words
    Buckets keys
    const uint32_t* name_starts
    const ListedName* names
    const uint64_t* entity_starts
    const uint8_t* entities
    const uint32_t* country_starts
    const uint16_t* countries
    const uint32_t* birth_starts
    const uint32_t* births
    const uint32_t* identifier_starts
    const ListedIdentifier* identifiers
    uint32_t n_identifier_buckets
    Buckets ids

cdef size_t item_bytes(int section) noexcept nogil
cdef uint64_t stamp()
cdef uint64_t magic()
cdef int open_view(object buffer, const uint8_t* data, size_t size, View* view) except -1


cdef inline uint32_t bucket_of(uint64_t hash, uint32_t n_buckets) noexcept nogil:
    return <uint32_t>(((hash >> 32) * n_buckets) >> 32)


cdef inline uint32_t id_mask_of(uint32_t n_ids) noexcept nogil:
    cdef uint32_t mask = 1
    while mask < n_ids:
        mask = mask << 1 | 1
    return mask
